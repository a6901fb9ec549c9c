"""What a run came to: its summary for programs and for people."""
