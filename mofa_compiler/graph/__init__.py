"""The traced graph: a program, the call that it was traced with, shapes and costs of its nodes."""
