"""Layer-wise relevance propagation: what arrives is relevance, and each rule shares it among the operands."""
