"""The core server on a Ray cluster: as many replicas as there is work for, behind Ray Serve's proxy."""
