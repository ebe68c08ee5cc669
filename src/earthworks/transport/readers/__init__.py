"""Readers of point clouds: .npy and .npz arrays, CSV and Parquet tables."""

__all__: list[str] = []
