"""Live streams of the network, each decoded in a process of its own: one that hangs or crashes is ended, and costs a
reconnect."""
