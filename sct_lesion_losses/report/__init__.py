"""Tables, pictures, model cards, pages and sidecars."""
