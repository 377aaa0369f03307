package org.clinic.web.pages;

public class ErrorPage extends Page {
    @Override
    public String path() {
        return "/error";
    }
}
