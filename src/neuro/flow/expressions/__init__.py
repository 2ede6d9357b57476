"""The expression language of flow files: ``${{ … }}`` and ``$[[ … ]]``.

Text becomes a template in the parser, and a template becomes a value in the evaluator. Import from
the modules themselves: checking a file needs no evaluator.
"""
