"""What people read: tables, pictures, model cards, sidecars."""
