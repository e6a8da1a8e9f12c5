"""What the server says to a request, whichever door it came through, in the real server's words and numbers."""
