"""The only door to the Spinal Cord Toolbox: its folder, its commands, its models, its reports."""
