"""How the shipped model and its adapters are drawn, trained and scored; see README.md in this folder."""
