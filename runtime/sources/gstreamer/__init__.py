"""What GStreamer plays: cameras at a board's own connector, its hardware decoder, and any pipeline that a person
describes; each in a process of its own."""
