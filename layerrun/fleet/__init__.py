"""To other machines and back: what is pushed and pulled, and signed channels."""
