package odometer.baselines;

import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Properties;

/** Connects to `postgres://USER[:PASSWORD]@HOST:PORT/DATABASE`. */
final class Postgres {
  private Postgres() {}

  static Connection connect(String url) throws SQLException {
    URI uri = URI.create(url);
    Properties options = new Properties();
    String[] user = uri.getUserInfo().split(":", 2);
    options.put("user", user[0]);
    if (user.length == 2) {
      options.put("password", user[1]);
    }
    return DriverManager.getConnection(
        "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath(), options);
  }
}
