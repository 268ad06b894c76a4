"""Core server on a Ray cluster: autoscaled replicas behind Ray Serve's proxy."""
