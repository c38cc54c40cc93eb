"""What the parts of Kanaria say to one another, declared once. The lowest layer: imports no other part."""
