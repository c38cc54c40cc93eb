"""What the parts of Kanaria share: names, formats and clients. It is the lowest layer and imports no other part."""
