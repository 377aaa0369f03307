package org.clinic.web;

import java.util.ResourceBundle;

public class Messages {
    public static String get(String key) {
        return ResourceBundle.getBundle("messages").getString(key);
    }
}
