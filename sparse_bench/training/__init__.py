"""The training loop and its parts; they use tasks and schemes only through their interfaces."""
