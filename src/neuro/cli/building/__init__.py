"""Building an image on the platform: `neuro image build` and `neuro-flow build` are this."""
