#!/usr/bin/env python3
"""cvc5 for the prover where there is no executable: PyPI `cvc5` brings the library alone.

Reads SMT-LIB 2 from standard input, one command a line or a command over several lines, and answers on standard output,
as the executable does: `check-sat`, `get-model` and `get-info` are answered as soon as their line is read. Options are
those of cvc5, as `--name=value`. What the parser refuses ends the program after an `(error "...")`.

How long and with how much memory is for the caller to bound: the prover sets limits on the process, and passes
`--tlimit-per`, which leaves the solver usable after `unknown`.
"""

import sys

import cvc5

ANSWERED = ("(check-sat)", "(get-model)", "(get-info :version)")
# What an executable takes to choose its language; the parser below is made for one.
NOT_OPTIONS = ("lang", "interactive")


class Session:
    """One solver. A `(reset)` makes another, so that nothing of a query is left for the next."""

    def __init__(self, options):
        terms = cvc5.TermManager()
        self.solver = cvc5.Solver(terms)
        for name, value in options:
            self.solver.setOption(name, value)
        self.symbols = cvc5.SymbolManager(terms)
        self.parser = cvc5.InputParser(self.solver, self.symbols)
        self.parser.setIncrementalStringInput(cvc5.InputLanguage.SMT_LIB_2_6, "stdin")

    def run(self, text):
        """The answers to the commands of a text, each with its newline."""
        self.parser.appendIncrementalStringInput(text)
        answers = []
        while True:
            command = self.parser.nextCommand()
            if command.isNull():
                return "".join(answers)
            answer = command.invoke(self.solver, self.symbols)
            # The reason behind `unknown` stays here: the protocol has one word.
            if answer.startswith("unknown"):
                answer = "unknown"
            if answer:
                answers.append(answer if answer.endswith("\n") else answer + "\n")


def options(arguments):
    found = []
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals:
            sys.exit(f"not an option of the form --name=value: {argument}")
        if name not in NOT_OPTIONS:
            found.append((name, value))
    return found


def main():
    chosen = options(sys.argv[1:])
    session, lines = Session(chosen), []
    for line in sys.stdin:
        command = line.strip()
        if command == "(exit)":
            return
        if command == "(reset)":
            session, lines = Session(chosen), []
            continue
        lines.append(line)
        if command not in ANSWERED:
            continue
        try:
            answer = session.run("".join(lines))
        except Exception as error:  # whatever the library raises, the caller is to read an error and not to wait
            reason = str(error).replace('"', "'").replace("\n", " ")
            print(f'(error "Parse Error: {reason}")', flush=True)
            return
        lines = []
        sys.stdout.write(answer)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
