"""The expression language of flow files: ``${{ … }}`` and ``$[[ … ]]``."""
