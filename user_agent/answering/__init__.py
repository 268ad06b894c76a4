"""One answer on the device: the request, the loop, the user model, what is shown of it."""
