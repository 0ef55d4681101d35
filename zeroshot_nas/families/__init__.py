"""One network for many devices: compound scaling of an architecture, and families of architectures."""
