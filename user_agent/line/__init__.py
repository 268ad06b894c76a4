"""The line to the core: the only package of the device that sends anything."""
