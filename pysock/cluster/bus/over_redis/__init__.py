"""The bus over a Redis or a Valkey: its publish and subscribe, and what a bus promises beyond that, made of it."""
