"""The commands: options in the Spinal Cord Toolbox's style over the library."""
