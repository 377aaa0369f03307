package org.clinic.web.text;

public class Escaper {
    public String escape(String text) {
        return text.replace("<", "&lt;");
    }
}
