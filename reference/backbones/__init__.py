"""What published implementations of backbones compute, as fixtures of the tests."""
