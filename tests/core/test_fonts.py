from core.fonts import drawable


def test_a_long_name_is_cut_though_it_is_one_word():
    assert drawable("using_remote_controller_(not_gaming)", 30) == "using_remote_controller_(not_…"
    assert drawable("playing\n a $5 \udce9 guitar", 30) == "playing a \\$5 ? guitar"
