package odometer.baselines;

import java.sql.Connection;
import java.sql.Statement;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;

/** Removes what a run made: topics and groups whose name begins with its random one, its schema. */
public final class Cleanup {
  private Cleanup() {}

  /** Arguments: BROKERS POSTGRES_URL NAME. */
  public static void main(String[] args) throws Exception {
    String name = args[2];
    try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
      List<String> topics = admin.listTopics().names().get().stream()
          .filter(topic -> topic.startsWith(name)).toList();
      admin.deleteTopics(topics).all().get();
      List<String> groups = admin.listGroups().all().get().stream()
          .map(GroupListing::groupId).filter(group -> group.startsWith(name)).toList();
      for (String group : groups) {
        delete(admin, group);
      }
    }
    try (Connection database = Postgres.connect(args[1]); Statement statement = database.createStatement()) {
      statement.execute("SET client_min_messages = warning");
      statement.execute("DROP SCHEMA IF EXISTS \"" + name + "\" CASCADE");
    }
  }

  /** Members of Kafka Streams stay in their group when they close, those of a crash anyway. */
  private static void delete(Admin admin, String group) throws Exception {
    boolean isEmpty = admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().isEmpty();
    if (!isEmpty) {
      admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all().get();
    }
    admin.deleteConsumerGroups(List.of(group)).all().get();
  }
}
