"""Cache entries: outcomes of tasks that later ones may take."""
