"""The doors: HTTP and gRPC on the outside, `answering` on the inside."""
