"""`python -m onnxplain.cli`, for where the script is not on the path."""

from onnxplain.cli import main

main()
