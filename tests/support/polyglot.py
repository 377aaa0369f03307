"""A repository in six languages, with imports and answers that are known."""

from __future__ import annotations

from typing import Final

FILES: Final[dict[str, str]] = {
    "README.md": "# Harbour\n\nA small system in six languages, made to be indexed.\n",
    "python/harbour/__init__.py": '"""The harbour."""\n',
    "python/harbour/tides.py": (
        '"""Tides."""\n\n\ndef next_high_water(now: float, period: float) -> float:\n'
        '    """When the sea will stand highest again, in hours."""\n'
        "    return now + period - now % period\n"
    ),
    "python/harbour/berths.py": (
        '"""Berths."""\n\nfrom harbour.tides import next_high_water\n\n\n'
        "def earliest_mooring(now: float) -> float:\n"
        '    """The first moment at which a deep ship can tie up at the quay."""\n'
        "    return next_high_water(now, 12.4)\n"
    ),
    "web/src/currency.js": (
        "// Money.\nexport function convertCurrency(amount, rate) {\n"
        "  // Round to whole cents.\n  return Math.round(amount * rate * 100) / 100;\n}\n"
    ),
    "web/src/invoice.js": (
        "import { convertCurrency } from './currency.js';\n\n"
        "export function invoiceTotal(lines, rate) {\n"
        "  return lines.reduce((sum, line) => sum + convertCurrency(line.price, rate), 0);\n}\n"
    ),
    "app/src/session.ts": (
        "export interface Session { user: string; expires: number; }\n\n"
        "/** Whether a login is too old to be trusted. */\n"
        "export function isSessionExpired(session: Session, now: number): boolean {\n"
        "  return session.expires <= now;\n}\n"
    ),
    "app/src/guard.ts": (
        "import { isSessionExpired, Session } from './session';\n\n"
        "export function requireLogin(session: Session | null): Session {\n"
        "  if (session === null || isSessionExpired(session, Date.now())) {\n"
        "    throw new Error('please log in');\n  }\n  return session;\n}\n"
    ),
    "go.mod": "module example.com/harbour\n\ngo 1.22\n",
    "retry/backoff.go": (
        'package retry\n\nimport "time"\n\n// Backoff doubles the wait after each failure, up to a minute.\n'
        "func Backoff(attempt int) time.Duration {\n\twait := time.Second << attempt\n"
        "\tif wait > time.Minute {\n\t\treturn time.Minute\n\t}\n\treturn wait\n}\n"
    ),
    "cmd/main.go": (
        'package main\n\nimport (\n\t"fmt"\n\n\t"example.com/harbour/retry"\n)\n\n'
        "func main() {\n\tfmt.Println(retry.Backoff(3))\n}\n"
    ),
    "java/src/main/java/harbour/Ledger.java": (
        "package harbour;\n\n/** Keeps the balance of every account. */\npublic class Ledger {\n"
        "    private long balance;\n\n    /** Take money out; refuses to go below zero. */\n"
        "    public void withdraw(long cents) {\n        if (cents > balance) {\n"
        '            throw new IllegalStateException("overdrawn");\n        }\n'
        "        balance -= cents;\n    }\n}\n"
    ),
    "java/src/main/java/harbour/Teller.java": (
        "package harbour.desk;\n\nimport harbour.Ledger;\n\npublic class Teller {\n"
        "    public void serve(Ledger ledger) {\n        ledger.withdraw(500);\n    }\n}\n"
    ),
    "Cargo.toml": '[package]\nname = "harbour"\nversion = "0.1.0"\nedition = "2021"\n',
    "src/lib.rs": "pub mod cipher;\npub mod letter;\n",
    "src/cipher.rs": (
        "/// Shift every letter of a secret by a number of places, as Caesar did.\n"
        "pub fn caesar(text: &str, places: u8) -> String {\n"
        "    text.bytes().map(|b| (b + places) as char).collect()\n}\n"
    ),
    "src/letter.rs": (
        "use crate::cipher::caesar;\n\npub fn seal(text: &str) -> String {\n    caesar(text, 3)\n}\n"
    ),
}

ANSWERS: Final[dict[str, tuple[str, str]]] = {
    "when is the sea at its highest": ("python/harbour/tides.py", "python"),
    "turn an amount of money into another currency": ("web/src/currency.js", "javascript"),
    "check whether a login is too old": ("app/src/session.ts", "typescript"),
    "wait longer after each failed attempt": ("retry/backoff.go", "go"),
    "refuse to take out more money than the account holds": (
        "java/src/main/java/harbour/Ledger.java",
        "java",
    ),
    "encrypt text by shifting letters": ("src/cipher.rs", "rust"),
}
"""A question in plain words, the file that answers it, and its language."""

IMPORTS: Final = frozenset(
    {
        ("python/harbour/berths.py", "python/harbour/tides.py"),
        ("web/src/invoice.js", "web/src/currency.js"),
        ("app/src/guard.ts", "app/src/session.ts"),
        ("cmd/main.go", "retry/backoff.go"),
        ("java/src/main/java/harbour/Teller.java", "java/src/main/java/harbour/Ledger.java"),
        ("src/lib.rs", "src/cipher.rs"),
        ("src/lib.rs", "src/letter.rs"),
        ("src/letter.rs", "src/cipher.rs"),
    }
)
