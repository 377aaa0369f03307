package org.clinic.web.pages;

import org.clinic.web.Messages;
import org.clinic.web.generated.Version;

public class HomePage extends Page {
    public HomePage(String title, Header header) {}

    @Override
    public String path() {
        return Version.NUMBER + Messages.get("home");
    }
}
