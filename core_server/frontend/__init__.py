"""The gRPC server: sessions, calls and the clients of the engines. It never imports torch."""
