"""The text of the tests."""

TEXT = """\
The whole of a word is learned from its parts: the, there, then, other, another, weather.
She'll say they've 12 cats, 345 dogs and 6789 birds!  Don't worry.

    for i in range(10):
        print("héllo wörld", i)   # 안녕하세요 👋
"""
