"""What is put beside a network to explain it: walks back, twins, taps, paths and what they need to know of it."""
