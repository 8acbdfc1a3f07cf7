"""`python -m mofa_compiler.cli`."""

from . import main

main()
