"""Measurements that need the documents of the device."""
