const loaves = require("@bakery/loaves");
const { createServer } = require("http");
const express = require("express");
const shop = import("./src/index.jsx");

createServer(express(loaves, shop));
