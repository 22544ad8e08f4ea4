from unlearn_jax.commandline import of_the_study


def test_the_command_of_a_study_says_nothing_of_its_processes():
    flags = ["--config=configs/ft.py", "--workdir", "w", "--config.seeds=(0,)"]
    assert of_the_study(["main", *flags]) == flags
    assert of_the_study(["main", "--coordinator=a:1", flags[0], "--processes=3", *flags[1:],
                         "--process_id=0"]) == flags
    assert of_the_study(["main", "--coordinator", "a:1", flags[0], "-processes", "3", *flags[1:],
                         "--process_id", "0", "--process_timeout", "9"]) == flags
