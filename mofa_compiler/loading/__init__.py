"""What TARGET names: a class or function by import string or file, its checkpoint and its inputs."""
