"""Pure functions, tensor to tensor: they import torch and nothing of ours, and leave their inputs untouched."""
