package org.clinic.web.pages;

import org.clinic.web.text.Escaper;

public abstract class Page {
    public abstract String path();

    public void render(Escaper escaper) {
        escaper.escape(path());
    }

    public static class Header {}

    public static class Footer {}
}
