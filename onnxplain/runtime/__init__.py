"""Running compiled graphs: sessions and providers, pictures in, heatmaps out."""
