"""From the wire to the domain and back: one module per trigger family."""
