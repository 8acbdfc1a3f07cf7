"""What every folder may use: errors, numbers in words, plain data, files written whole or not at all."""
