package org.clinic.web;

import org.clinic.config.Settings;
import org.clinic.store.Store;
import org.clinic.web.pages.*;
import org.clinic.web.pages.Page.*;

public class Main {
    public static void main(String[] arguments) {
        Settings settings = Settings.load(arguments);
        new Router(new Store()).add(new HomePage(settings.title(), new Header()));
    }
}
