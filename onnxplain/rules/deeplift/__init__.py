"""DeepLIFT: what arrives is a multiplier, and each rule keeps the sum of multiplier times difference from the baseline.

For every rule, with differences D taken between the sample and the baseline, element by element and sample by sample:

    sum over operands of m_x Dx  =  sum over outputs of m_y Dy            (summation to delta, survey eq. 19-21)

Linear operators keep it by their derivative. Three ideas cover the others:

- One number in, one out: m_x = m_y Dy/Dx, the Rescale rule.
- A relation of degree two between operands and output (a product, a quotient, a root, a norm): the derivative taken
  halfway between sample and baseline is the exact quotient of differences, since the error of the midpoint is of degree
  three. For a product this is the symmetric rule D(ab) = Da (b + b0)/2 + Db (a + a0)/2.
- A maximum: one element moves at least as far as the maximum does, in the same direction, and takes all.
"""
