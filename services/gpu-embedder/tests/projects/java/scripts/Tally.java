class Tally {
    void count(long files) {}
}
